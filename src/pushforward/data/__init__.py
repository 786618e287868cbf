"""Data: reading and checking them, the schema that restores them, reversible transforms, data sets."""
