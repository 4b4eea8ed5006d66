"""The Pulumi program: one RegionalStack per data region."""
