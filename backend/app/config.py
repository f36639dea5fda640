"""Settings, read from the environment once."""

from functools import lru_cache
from secrets import token_hex
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIN_KEY_LENGTH = 32


class Settings(BaseSettings):
    """What the application needs to know about where it runs."""

    # A message about a wrong setting must not show the key or the database's password.
    model_config = SettingsConfigDict(hide_input_in_errors=True)

    database_url: str = Field("postgresql+asyncpg://localhost/app", repr=False)
    environment: Literal["development", "production"] = "development"
    # New in every process that is not given one, so that there is no key to be read here.
    secret_key: SecretStr = Field(default_factory=lambda: SecretStr(token_hex(32)))
    access_token_minutes: int = 15
    refresh_token_days: int = 14

    @model_validator(mode="after")
    def _refuse_a_guessable_key(self) -> Self:
        if self.environment == "production" and "secret_key" not in self.model_fields_set:
            message = "SECRET_KEY must be set in production"
            raise ValueError(message)
        if len(self.secret_key.get_secret_value()) < MIN_KEY_LENGTH:
            message = f"SECRET_KEY must have at least {MIN_KEY_LENGTH} characters"
            raise ValueError(message)
        return self


@lru_cache
def get_settings() -> Settings:
    """Return the settings, the same object every time."""
    return Settings()
