"""The text side: from a camera's angles to a view, and from a prompt to one prompt per view.

Imports nothing of ours; transformers is loaded when a language model is, not before.
"""
