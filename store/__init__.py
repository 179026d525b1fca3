"""The log: tables, sessions, migrations and one module of queries per noun. Everything else stands on it."""
