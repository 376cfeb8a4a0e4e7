"""`sidestage up`: several services at once, from one file."""
