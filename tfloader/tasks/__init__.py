"""Whole tasks: from text to answer, with training, metrics and a folder to keep them in."""

from tfloader.tasks.base import Task
from tfloader.tasks.classifier import Classified, TextClassifier
from tfloader.tasks.loading import load_task
from tfloader.tasks.sentences import SentenceEncoder
from tfloader.tasks.tagger import Entity, Tagger

__all__ = ["Classified", "Entity", "SentenceEncoder", "Tagger", "Task", "TextClassifier", "load_task"]
