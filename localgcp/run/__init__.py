"""What runs behind the Cloud Run API: processes as instances, the way of a request to them, and jobs."""
