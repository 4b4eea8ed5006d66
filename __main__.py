"""Where Pulumi enters. The program is `infra`."""

from infra.__main__ import main

main()
