"""TopFive's load generator, which runs in Locust: ``locust -f loadtest/``.

Locust executes every file here whose name does not begin with an underscore: ``locustfile.py`` and no other. The
generator speaks HTTP only: it imports neither ``service`` nor ``models``. ``topfive loadtest``, which searches each
network's highest rate with it and writes a report, is the package ``loadreport``.

1. ``_options.py`` adds TopFive's options to Locust's; ``_values.py`` reads their values.
2. ``_listeners.py`` is what happens at Locust's events. ``_catalogue.py`` asks the service which models it can serve.
   ``_run.py`` is one run: the requests, the window in which they are measured, and the results file.
3. ``_requests.py`` builds the requests of the four kinds of users before the run, with ``_pictures.py``.
4. ``_users.py`` are the users, each of whom sends requests over a ``_connection.py`` of its own. In a closed loop a
   user sends its own requests. In an open loop ``traffic/arrivals.py`` says when each request is due, and ``_pool.py``
   hands it to a user that is free.
5. ``_outcomes.py`` reads what became of a request, ``_measured.py`` counts it, ``_summary.py`` prints the results.
   ``_cpu.py`` notices when the generator itself limits a run. ``_stub.py`` is a server to test the generator with.
"""
