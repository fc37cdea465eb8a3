"""How much load each network bears, and the report that says so: what ``topfive loadtest`` runs.

The package speaks HTTP to the service and starts Locust as a process. It imports neither ``service``, ``models`` nor
``loadtest``, and never Locust, which puts gevent in the place of half of Python's library.

Measuring:

1. ``campaign.py`` measures the networks one after the other, then mixed budgets. ``target.py`` asks the service for its
   networks and has them loaded.
2. ``steps.py`` says what each run of Locust is asked for and whether its rate held. ``locust_process.py`` runs Locust
   on ``loadtest/`` once, and ``results.py`` reads the results file.
3. ``knee.py`` searches the highest rate that holds. ``progress.py`` shows how far the load test is.

Reporting:

4. ``report.py`` is what was found, as ``report.json`` has it. ``pareto.py`` marks the networks that no other beats,
   ``gates.py`` checks the limits of a release (``loadtest/gates.toml``), ``comparison.py`` compares with an earlier
   report.
5. ``document.py`` turns a report into sections of sentences and tables, with ``formatting.py``'s figures. ``pages.py``
   renders them with ``templates/`` and writes all files (``files.py``), ``plots.py`` draws, ``terminal.py`` prints.
"""
