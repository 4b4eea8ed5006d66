"""A Google Cloud region on one machine: Google's REST APIs on loopback, with real parts behind them."""
