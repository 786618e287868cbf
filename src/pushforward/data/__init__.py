"""Raw data in, raw data out: reading, checks, the schema, reversible transforms, data sets."""
