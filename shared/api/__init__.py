"""The triggers, and the HTTP API: what may be asked, what is answered, and its OpenAPI document."""
