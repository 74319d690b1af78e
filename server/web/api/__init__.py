"""The handlers of the HTTP API, a module for each resource, and the table of routes.

Lives here: what a request means and what it answers. Must not know: sockets, or how answers are cached. The machinery
above this folder never imports it, apart from the composition in web/app.py.
"""
