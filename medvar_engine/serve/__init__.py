"""`medvar serve`: the networks of a bundle, and the generator, behind a socket.

`app.make_app` is the application, `run.serve` runs it. The client's end is `medvar_engine.backends.remote`, which needs
nothing of this room.
"""
