"""What can go wrong, done on purpose: each fault takes effect, is seen to, and is taken back."""
