"""The studio: a small HTTP API with the operations of the command line, and the page that uses it.

``app.create`` makes the FastAPI application, ``serve.serve`` runs it. Needs the extra ``studio``.
"""
