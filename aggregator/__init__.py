"""The aggregator: a durable ledger of updates, merged asynchronously into versions of a model.

``engine`` is the core, synchronous and free of threads; ``service`` puts it behind MQTT and HTTP;
``command`` is ``rivulet-aggregator``.
"""
