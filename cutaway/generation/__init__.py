"""Weights and a prompt to text."""

from cutaway.generation.conversation import Conversation
from cutaway.generation.engine import Engine
from cutaway.generation.generate import generate, stream
from cutaway.generation.request import Generation, Request, Token
from cutaway.generation.sampling import Sampling, distribution
from cutaway.generation.ticket import Ticket

__all__ = [
    "Conversation",
    "Engine",
    "Generation",
    "Request",
    "Sampling",
    "Ticket",
    "Token",
    "distribution",
    "generate",
    "stream",
]
