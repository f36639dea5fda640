"""Settings, read from the environment once."""

from functools import lru_cache
from typing import Literal, Self

from pydantic import SecretStr, model_validator
from pydantic_settings import BaseSettings

DEVELOPMENT_KEY = "development-only-key-never-used-in-production"
MIN_KEY_LENGTH = 32


class Settings(BaseSettings):
    """What the application needs to know about where it runs."""

    database_url: str = "postgresql+asyncpg://localhost/app"
    environment: Literal["development", "production"] = "development"
    secret_key: SecretStr = SecretStr(DEVELOPMENT_KEY)
    access_token_minutes: int = 15
    refresh_token_days: int = 14

    @model_validator(mode="after")
    def _refuse_a_guessable_key(self) -> Self:
        key = self.secret_key.get_secret_value()
        if self.environment == "production" and key == DEVELOPMENT_KEY:
            message = "SECRET_KEY must be set in production"
            raise ValueError(message)
        if len(key) < MIN_KEY_LENGTH:
            message = f"SECRET_KEY must have at least {MIN_KEY_LENGTH} characters"
            raise ValueError(message)
        return self


@lru_cache
def get_settings() -> Settings:
    """Return the settings, the same object every time."""
    return Settings()
