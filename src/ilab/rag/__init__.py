"""Retrieval: passages of documents kept so that a question finds those that answer it.

chunks ──embedder──▶ store (one SQLite file: full text and vectors) ──▶ retriever ──▶ passages with their citations
"""
