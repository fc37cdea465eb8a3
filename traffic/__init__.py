"""When requests are due, for whoever sends them: the load generator (``loadtest``) and the simulation
(``service/twin``). It knows neither Locust nor the service."""
