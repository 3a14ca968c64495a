"""What a run costs and how near it comes to Azure's limits: `make bench`; and what it bears: `make soak`. Not deployed.

A server with Azure's published token buckets plays a fleet (`bench.server`), a process of its own runs the product's
terminal command or a peer against it (`bench.measure`), and what both say becomes a table and a plot (`bench.report`).
"""
