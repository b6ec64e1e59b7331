"""The public HTTP of the status service: the page, the JSON APIs, events, feed and badges. It only tells.

All of it is made from a `Board`; each document is made once per version of it, and served as bytes.
"""
