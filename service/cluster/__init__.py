"""Ray Serve: the driver, the deployments, and predictors in other processes. Only this room imports Ray."""
