"""HTTP: requests come in as bytes, answers go out as JSON and problem documents."""
