"""TopFive's load tests, over HTTP: the package imports neither ``service`` nor ``models``.

``locust -f loadtest/`` executes ``locustfile.py``, and every other file here but those that begin with an underscore.

The load generator, which runs in Locust's process:

1. ``_options.py``: TopFive's options of Locust, read by ``_values.py``.
2. ``_listeners.py``: what happens at Locust's events. It asks the service what it can serve (``_catalogue.py``), and
   ``_run.py`` is one run: what it asks for, when it is measured, and its results file.
3. ``_requests.py`` builds the requests of the four kinds of users once, of ``_pictures.py``.
4. ``_users.py``: the users, who send them over a ``_connection.py`` each. In a closed loop they send their own; in an
   open loop ``_arrivals.py`` says when which is due and ``_pool.py`` hands it to a user who is free.
5. ``_outcomes.py`` reads what became of a request, ``_measured.py`` counts it, ``_summary.py`` shows it at the end.
   ``_cpu.py`` notices when the generator itself limits a run. ``_stub.py`` is the server that it is tested against.

The report, ``topfive loadtest`` (``service/loadtest_command.py``), which runs Locust as a process and never imports it:

1. ``_campaign.py``: the networks one after the other, then mixed budgets. ``_target.py`` asks the service,
   ``_steps.py`` says what a run is asked for and whether its rate held, ``_locust.py`` runs Locust once and
   ``_results.py`` reads its results file. ``_knee.py`` searches the highest rate that holds; ``_progress.py`` shows how
   far it is.
2. ``_report.py``: what was found, as ``report.json`` has it (``_machine.py``: what generated the load). ``_front.py``
   marks the Pareto front, ``_gates.py`` judges what a release must hold (``gates.toml``), ``_compared.py`` holds it
   against an earlier report.
3. ``_written.py`` writes it: the parts of ``_sections.py`` and ``_details.py``, made of ``_tables.py``, as Markdown
   (``_markdown.py``) and HTML (``_html.py``) with the pictures of ``_plots.py``; ``_terminal.py`` is what the command
   prints.
"""
