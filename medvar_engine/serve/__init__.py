"""`medvar serve`: the networks of a bundle, and the generator, behind a socket.

`app.make_app` is the application, `run_server.make_server` what runs it. The client's end is
`medvar_engine.remote.remote_backend`, which needs nothing of this room.

A request passes `guard` (may it ask at all?), `body` and `memory_budget` (is there room?), and becomes a `Job` in a
thread. There `network_requests` (messages) or `stream` (whole images) use `networks` like a backend of their own, whose
every use waits for its turn (`fair_lock`). `answer` sends what comes of it.
"""
