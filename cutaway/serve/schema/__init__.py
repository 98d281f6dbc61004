"""What requests and answers look like, exactly: pydantic models, from which the OpenAPI schema is made."""
