"""TopFive's service. The path of one request, file by file:

1. ``api.py``: the app; ``classify.py`` is the path that counts. ``uploads.py`` reads a body's bytes and ``bodies.py``
   the pictures in it (``multipart.py``, ``base64_text.py``); ``disconnects.py`` notices a caller who goes.
   ``paths.py`` has the other paths, ``callers.py`` says who may load and unload, ``docs_pages.py`` has /docs,
   ``schemas.py`` the shapes.
2. ``router.py``: which checkpoint answers. It asks the placement how checkpoints stand and ``router.py``, a pure
   function, which one fits the budget (``snapshot.py`` has its words, ``refusal.py`` its noes); ``promises.py`` keeps
   what others were promised, ``comeback.py`` tells the refused when to come back. ``ensemble.py``: several, named
   together, of which ``averaging.py`` makes one answer.
3. ``placement.py``: a checkpoint -> the predictor that serves it, in this process, or over the hop of ``remote.py``,
   whose far end is ``host.py``.
4. ``predictor.py``: one checkpoint being served: decode in a small thread pool (a thumbnail on the spot:
   ``decoding.py``; ``arriving.py`` has who is there), queue, forward, top-k (``prediction.py``). ``residency.py``
   keeps it in memory meanwhile, under a byte limit (``resident.py``: one entry of it); ``load_failures.py`` remembers
   what could not be loaded.
5. ``batcher.py``: waits for the device slot (``device.py``), takes what is queued, earliest deadline first
   (``deadline_queue.py``), as much as makes a good batch (``cutting.py``).
6. ``passes.py`` and ``engines/``: a uint8 batch -> probabilities and class numbers, on the device; ``choice.py``
   picks the engine.
7. ``answers.py``: predictions and failures -> responses; ``errors.py``: the one table of what can go wrong.

What a checkpoint takes: ``profiles.py`` keeps what was measured, ``measuring.py`` measures it in a process of its own,
``profiling.py`` says when, and ``forecast.py`` corrects it by what was measured since, which fades when nobody uses the
checkpoint (``quiet.py``). ``batch_limit.py`` finds out how large a batch pays.

What is seen of it: ``metrics.py`` declares every metric, ``recording.py`` is what the path above calls, ``live.py``
reads queues and memory when Prometheus asks. ``exposition.py`` serves them, a process each and all added up;
``targets.py`` says where (``target_book.py``). ``logs.py`` has the log lines, ``tracing.py`` the spans of a request and
``phases.py`` those of a picture. ``observability/`` is for Prometheus and Grafana: rules, alerts, dashboards, and what
draws them.

Around it: ``local.py`` wires the above into one process and ``app.py`` into Ray Serve; ``fleet.py`` reads which
deployment serves what and ``capacity.py`` whether it fits; ``settings.py`` has every setting. ``cli.py`` is the command
line, whose ``serve`` is ``supervisor.py``; that starts and ends ``driver.py``, which starts and stops Ray and HAProxy.
``listening.py`` knows which addresses a host means, ``haproxy.py`` puts them and our answers into Serve's configuration
of HAProxy, and ``draining.py`` is how that ends without a reset.
``state.py`` is the service's record on this machine, ``processes.py`` knows which processes are its own, ``status.py``
shows both. ``describing.py`` prints what networks are made of, ``profile_command.py`` measures them,
``train_command.py`` trains them, ``evaluate_command.py`` says how often they are right (``evaluation_tables.py``: in
tables), ``loadtest_command.py`` puts a running service under load (the package ``loadtest``),
``fetching.py`` runs pulls side by side, ``terminal.py`` is where commands write.
"""
