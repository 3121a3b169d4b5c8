"""Reports as single HTML files: nothing is loaded, nothing runs, and text is text."""
