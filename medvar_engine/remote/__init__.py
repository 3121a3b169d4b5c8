"""The client of `medvar serve`, and the messages that both ends send."""
