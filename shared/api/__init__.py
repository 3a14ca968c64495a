"""The HTTP API: what may be asked, what is answered, and its OpenAPI document. It knows no HTTP framework."""
