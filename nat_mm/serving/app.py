"""The HTTP interface: takes an image and returns what the model found."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from nat_mm import __version__
from nat_mm.errors import UserError
from nat_mm.inference.drawing import SCORE_THRESHOLD
from nat_mm.inference.images import UnreadableInput
from nat_mm.inference.inputs import Frame, LeftOut
from nat_mm.inference.model import Model
from nat_mm.inference.result_files import encode_labels, encode_segments
from nat_mm.inference.results import DetectionResult, Result, SegmentationResult
from nat_mm.serving.batching import Batcher
from nat_mm.serving.intake import Intake, Limits, count_pixels
from nat_mm.serving.requests import CountedRequest
from nat_mm.serving.schemas import ANSWERS, Health, MaskFormat, ModelInfo, Problem, describe

_Value = TypeVar('_Value')

_HELPERS = 4
"""Number of threads that decode images and encode results while the model is running."""

_IMAGE = {'schema': {'type': 'string', 'format': 'binary'}}
_BODY = {
    'required': True,
    'content': {
        'image/*': _IMAGE,
        'multipart/form-data': {
            'schema': {
                'type': 'object',
                'required': ['file'],
                'properties': {'file': {'type': 'string', 'format': 'binary'}},
            }
        },
    },
}
_PROBLEMS = {
    400: 'the form has not one file, or the model has no PNG',
    403: 'the request comes from a page of another site',
    413: 'the file or the image is too large',
    415: 'not an image',
    422: 'a damaged image, one that the model cannot take, or a wrong parameter',
    500: 'an error of the server',
    503: 'too many images are waiting; Retry-After says how long to wait',
    504: 'not predicted in time',
}


class Output(StrEnum):
    """Format of the response."""

    JSON = 'json'
    PNG = 'png'


def build_app(model: Model, limits: Limits, *, name: str) -> FastAPI:
    """Builds the application that serves a model.

    Args:
        model: The model; nothing else may use it at the same time.
        limits: Limits on what clients may use.
        name: Name of the model.
    """
    intake = Intake(limits)
    batcher = Batcher(model, batch_size=limits.batch_size, max_wait=limits.max_wait)
    helpers = ThreadPoolExecutor(_HELPERS, 'image')

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with helpers, batcher:
            yield

    app = FastAPIOffline(
        title=f'nat_mm: {name}',
        version=__version__,
        description=f'Predicts images with a model for {model.task}.',
        redoc_url=None,
        lifespan=lifespan,
    )

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        await CountedRequest(request.scope, request.receive).read_rest(intake.longest_body)
        return problem(
            422, ' '.join(f'{each["loc"][-1]}: {each["msg"]}.' for each in error.errors())
        )

    @app.get(
        '/health', summary='Whether the server can predict', responses={503: {'model': Health}}
    )
    async def health(response: Response) -> Health:
        if not batcher.is_alive:
            response.status_code = 503
        return Health(ready=batcher.is_alive, waiting=intake.waiting, version=__version__)

    @app.get('/model', summary='What the model is')
    async def model_info() -> ModelInfo:
        return ModelInfo.of(model, limits, name=name)

    @app.post(
        '/predict',
        summary='Predict an image',
        response_model=ANSWERS[model.task],
        responses={
            200: {'content': {'image/png': _IMAGE}},
            **{
                status: {'model': Problem, 'description': text}
                for status, text in _PROBLEMS.items()
            },
        },
        openapi_extra={'requestBody': _BODY},
    )
    async def predict(
        request: Request,
        score_threshold: Annotated[
            float, Query(ge=0, le=1, description='lowest score of the objects of a detector')
        ] = SCORE_THRESHOLD,
        masks: Annotated[
            MaskFormat, Query(description="how masks and a label map's classes are written")
        ] = MaskFormat.RLE,
        output: Annotated[
            Output,
            Query(
                description='json, or png for the label image of a segmentor, numbered as its '
                'ground truth, or the segments of a panoptic model, as COCO has them'
            ),
        ] = Output.JSON,
    ) -> Response:
        counted = CountedRequest(request.scope, request.receive)

        async def answer(content: bytes) -> Response:
            pixels = await in_helper(lambda: count_pixels(content, megapixels=limits.megapixels))
            with intake.room(pixels):
                frame = await in_helper(lambda: decode(model, content, limits))
                future = batcher.submit(frame, score_threshold=score_threshold)
                result = await asyncio.wrap_future(future)
                return await in_helper(lambda: encode(result, masks, output))

        try:
            # Other sites' pages that are open in the same browser must not use the model.
            if request.headers.get('sec-fetch-site', 'none') not in ('same-origin', 'none'):
                raise HTTPException(403, 'This request comes from a page of another site.')
            with intake.file(counted) as file:
                content = await file.receive()
                with intake.turn():
                    return await unless_gone(counted, answer(content), seconds=limits.timeout)
        except HTTPException as error:
            response = JSONResponse({'detail': error.detail}, error.status_code, error.headers)
            if not await counted.read_rest(intake.longest_body):
                response.headers['Connection'] = 'close'
            return response
        except ClientDisconnect:
            return Response(status_code=499)  # nobody will read this
        except TimeoutError:
            return problem(504, f'Not predicted within {limits.timeout:g} seconds.')
        except Exception as error:
            return explain(error)

    async def in_helper(function: Callable[[], _Value]) -> _Value:
        return await asyncio.get_running_loop().run_in_executor(helpers, function)

    return app


def decode(model: Model, content: bytes, limits: Limits) -> Frame:
    """Reads an image as the config's test pipeline does."""
    loaded = model.loader.load_bytes(content, max_megapixels=limits.megapixels)
    return Frame(loaded.drawing, 'image', 'image', results=loaded.results)


def encode(result: Result, masks: MaskFormat, output: Output) -> Response:
    """Encodes a result in the requested format."""
    if output == Output.JSON:
        return Response(
            describe(result, masks).model_dump_json(exclude_none=True),
            media_type='application/json',
        )
    if isinstance(result, SegmentationResult):
        model = result.model
        content = encode_labels(
            result.label_map, classes=len(model.classes), first=model.first_label
        )
    elif isinstance(result, DetectionResult) and result.segments is not None:
        content = encode_segments(result.segments)
    else:
        raise HTTPException(400, 'output=png is for label maps, which this model does not predict.')
    return Response(content, media_type='image/png')


async def unless_gone(
    request: CountedRequest, work: Coroutine[Any, Any, _Value], *, seconds: float
) -> _Value:
    """Waits for some work, and cancels it when the client is gone or the time is up.

    Args:
        request: The request, completely read.
        work: The work to wait for.
        seconds: Longest time to wait.

    Raises:
        ClientDisconnect: If the client is gone.
        TimeoutError: If the work takes longer.
    """

    async def watch() -> None:
        while not request.is_gone:
            await request.receive()

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(watch())]
    try:
        async with asyncio.timeout(seconds):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


def explain(error: Exception) -> JSONResponse:
    """Creates the response for an image that could not be predicted."""
    if isinstance(error, UnreadableInput | UserError):
        return problem(422, f'The image cannot be used: {error}.')
    faults = LeftOut()
    faults.add(Path('image'), error, doing='The image cannot be predicted')
    if faults.unexpected is None:
        return problem(422, f'{faults[Path("image")]}.')
    logging.getLogger(__name__).error('An image was not predicted', exc_info=error)
    return problem(500, 'The image cannot be predicted; the log of the server says why.')


def problem(status: int, detail: str) -> JSONResponse:
    """Creates an error response."""
    return JSONResponse({'detail': detail}, status)
