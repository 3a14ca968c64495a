"""The templates of infra/ as the real Bicep compiler sees them: compiled, formatted, and predicted as resources."""
