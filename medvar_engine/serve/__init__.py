"""`medvar serve`: the networks of a bundle, and the generator, behind a socket.

`app.make_app` is the application, `run.make_server` what runs it. The client's end is `medvar_engine.backends.remote`,
which needs nothing of this room.

A request passes `guard` (may it ask at all?), `body` and `memory` (is there room?), and becomes a `Job` in a thread.
There `calls` (messages) or `stream` (whole images) use `networks` like a backend of their own, whose every use waits
for its turn (`fair_lock`). `answer` sends what comes of it.
"""
