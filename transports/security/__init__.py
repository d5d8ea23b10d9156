"""Keys, who is admitted, and ZAP, which asks that of every connection."""
