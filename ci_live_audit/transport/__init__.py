"""How a request gets there: one exchange, over our own connections or a client of yours."""
