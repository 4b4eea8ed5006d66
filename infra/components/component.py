"""What every component has in common."""

import pulumi


class Component(pulumi.ComponentResource):
    """`child` are the options of each resource inside: it belongs to the component and waits for what that waits for.

    Pulumi does not hand `depends_on` down to a component's children, and APIs have to be enabled before any of them.
    """

    child: pulumi.ResourceOptions

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(f"validibot:infra:{type(self).__name__}", name, None, opts)
        self.child = pulumi.ResourceOptions(parent=self, depends_on=opts.depends_on if opts else None)

    def child_with(self, opts: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
        """`child` and, on top, `opts`."""
        return pulumi.ResourceOptions.merge(self.child, opts)
