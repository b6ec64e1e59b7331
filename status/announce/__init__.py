"""Tells subscribers of incidents and maintenance: Telegram, Slack, webhooks, e-mail; each once, whatever restarts."""
