"""TopFive's service, in six floors of rooms. A room imports from the floors below it, and from nothing beside it.

    6  commands    the ``topfive`` command line      |  cluster      Ray Serve: the only room that imports ray
       solo        the service without Ray           |
    5  assembly    one process put together from     |  twin         the same on a virtual clock,
                   the rooms below, without Ray      |               with simulated devices
    4  http        bytes in, JSON and problems out   |  runtime      checkpoints being served in this process
       fronts      asking a device owner             |
    3  inference   one picture in, one answer out    |  profiling    what a checkpoint takes, measured and corrected
    2  routing     which checkpoint answers          |  batching     batches on one device, earliest deadline first
       engines     how a checkpoint runs             |  telemetry    metrics, logs, traces
       lifecycle   start, watch and stop services    |  link         messages and crops between front and owner
       access      keys, roles and rates of callers  |
    1  domain      the words that rooms share        |  config       settings, fleets, whether they fit the machine

The path of one request in one process. ``domain/classified.py`` is where fronts and a device owner divide it:
1. ``http/app.py`` (in a front: ``http/front.py``) hands ``POST /classify`` to ``http/classify.py``, which reads it.
2. ``inference/classifier.py`` takes each picture; in a front ``fronts/classifier.py``, which has an owner do it
   (``runtime/owner.py``, over ``link/``) and decodes.
3. ``routing/router.py`` asks for snapshots; ``routing/choose.py``, a pure function, picks a checkpoint by them.
4. ``domain/placement.py``: the protocol of ``runtime/placement.py`` (this process) and ``cluster/remote.py`` (others).
5. ``runtime/predictor.py`` decodes, queues (``batching/batcher.py``), keeps the network in memory (``residency.py``)
   and has ``engines/`` compute the batch (``forward.py``).
6. ``profiling/forecast.py`` and ``routing/safety.py`` learn from what it took; ``telemetry/recorder.py`` counts it.
7. ``http/responses.py`` turns the prediction into JSON, ``http/reply.py`` a failure into a problem document.
"""
