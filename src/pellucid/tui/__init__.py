"""The terminal debugger, `pellucid step`: a generation driven by keys. Only `app.py` needs Textual."""
