"""The client of `medvar serve`, and the message format of client and server."""
