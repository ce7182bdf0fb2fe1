"""What is kept and asked: the store, queries, runs, tables and the ``ahba`` command."""
