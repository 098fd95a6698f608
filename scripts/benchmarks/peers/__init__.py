"""What users would pick instead, on the same job (none), Redis and machine."""
