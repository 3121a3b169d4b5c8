"""`medvar serve`: provides the networks of a bundle and the generator over HTTP.

`app.make_app` makes the application, and `run_server.make_server` the server. The client is
`medvar_engine.remote.remote_backend`, which does not depend on this package.

A request passes `guard` (authorisation), `body` and `memory_budget` (size and memory limits), and becomes a `Job` in a
thread. There `network_requests` (messages) or `stream` (whole images) use `networks` like a backend; each use of a
network waits for its turn (`fair_lock`). `answer` sends the result.
"""
