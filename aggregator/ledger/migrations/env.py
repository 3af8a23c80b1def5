"""What Alembic runs to have the migrations done on the connection that it was handed."""

from alembic import context

from aggregator.ledger.schema import metadata

__all__: list[str] = []

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
