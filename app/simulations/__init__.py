"""Long validations that run as jobs of their own: what was asked, what came back, and what never did."""
