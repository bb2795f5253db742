"""What goes over the wire: requests, signatures, documents, results, refusals. Pure."""
