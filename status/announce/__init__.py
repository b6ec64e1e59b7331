"""Announcements: each subscriber hears of what concerns it, once, on its channel, whatever fails meanwhile."""
