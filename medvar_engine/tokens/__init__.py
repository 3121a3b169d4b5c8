"""Token maps: the schedule of scales, the token pyramid, and similar codes."""
