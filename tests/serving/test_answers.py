"""Tests that the server answers with the same results as the model alone."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

import nat_mm
from nat_mm.inference.mask_crops import MaskCrop
from nat_mm.inference.results import DetectionResult
from tests.model_zoo import ROOT
from tests.serving.conftest import png

PNG = png()
IMAGE = cv2.imdecode(np.frombuffer(PNG, np.uint8), cv2.IMREAD_COLOR)


def test_detector(start, models):
    client = start('detection')
    expected = models['detection'].predict(IMAGE, score_threshold=0)
    answer = client.post('predict?score_threshold=0', content=PNG).json()
    assert (answer['task'], answer['height'], answer['width']) == ('detection', 48, 64)
    assert len(answer['instances']) == len(expected.scores) > 0
    for instance, wanted in zip(answer['instances'], expected.describe()['instances'], strict=True):
        assert instance['mask'] == wanted['mask']
        assert instance['class_name'] == wanted['class_name']
        np.testing.assert_allclose(instance['bbox'], wanted['bbox'], rtol=1e-6)
        assert instance['score'] == pytest.approx(wanted['score'])

    without = client.post('predict?score_threshold=0&masks=none', content=PNG).json()
    for instance in answer['instances']:
        del instance['mask']
    assert without == answer
    threshold = float(np.median(expected.scores))
    fewer = client.post('predict', params={'score_threshold': threshold}, content=PNG).json()
    assert 0 < len(fewer['instances']) < len(answer['instances'])
    assert client.post('predict?output=png', content=PNG).status_code == 400


def test_polygons_cover_the_masks(start, models, monkeypatch):
    client = start('detection')
    mask = np.zeros((1, 48, 64), bool)
    mask[0, 5:20, 7:30] = mask[0, 30:40, 50:64] = True
    masks = property(lambda result: np.repeat(mask, len(result.labels), axis=0))
    monkeypatch.setattr(DetectionResult, 'masks', masks)
    answer = client.post('predict?score_threshold=0&masks=polygon', content=PNG).json()
    first = answer['instances'][0]
    assert 'mask' not in first
    drawn = np.zeros((48, 64), np.uint8)
    corners = [np.reshape(polygon, (-1, 1, 2)).astype(int) for polygon in first['polygons']]
    cv2.fillPoly(drawn, corners, 1)
    np.testing.assert_array_equal(drawn, mask[0])


def test_segmentor(start, models):
    client = start()
    labels = models['segmentation'].predict(IMAGE).label_map
    answer = client.post('predict', content=PNG).json()
    found = np.full((48, 64), -1)
    for each in answer['classes']:
        region = coco_mask.decode(each['mask']).astype(bool)
        assert each['share'] == pytest.approx(region.mean())
        assert each['class_name'] == models['segmentation'].classes[each['label']]
        found[region] = each['label']
    np.testing.assert_array_equal(found, labels)
    polygons = client.post('predict?masks=polygon', content=PNG).json()['classes']
    assert all(MaskCrop.of(labels == each['label']).mask.size for each in polygons)
    assert polygons[0]['polygons']

    response = client.post('predict?output=png', content=PNG)
    assert response.headers['content-type'] == 'image/png'
    image = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(image, labels + 1)  # like the ground truth of the demo


def test_classifier(start, models):
    pytest.importorskip('mmpretrain')
    config, few = ROOT / 'tests/small_classifier.py', {'model.head.num_classes': 3}
    model = nat_mm.load_model(config, 'none', device='cpu', overrides=few)
    models['classification'] = model
    client = start('classification')
    answer = client.post('predict', content=PNG).json()
    expected = model.predict(IMAGE)
    assert [each['class_name'] for each in answer['classes']] == expected.class_names
    assert sum(each['score'] for each in answer['classes']) == pytest.approx(1)
    assert client.post('predict?output=png', content=PNG).status_code == 400


@pytest.mark.parametrize('suffix', ['.jpg', '.webp', '.tiff', '.bmp'])
def test_bodies_and_forms(suffix, start):
    client = start()
    content = cv2.imencode(suffix, IMAGE)[1].tobytes()
    answers = [
        client.post('predict', content=content, headers={'Content-Type': kind})
        for kind in ('image/jpeg', 'application/octet-stream')
    ]
    answers.append(client.post('predict', content=content))
    answers.append(client.post('predict', files={'file': ('a' * 300, content)}))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert all(answer.json() == answers[0].json() for answer in answers)


def test_what_the_server_says_of_itself(start, models):
    client = start(queue=7, megabytes=3)
    assert client.get('health').json() == {
        'ready': True,
        'waiting': 0,
        'version': nat_mm.__version__,
    }
    info = client.get('model').json()
    assert info['classes'] == models['segmentation'].classes
    assert [tuple(color) for color in info['palette']] == models['segmentation'].palette
    assert (info['task'], info['queue'], info['megabytes']) == ('segmentation', 7, 3)
    assert info['architecture'] == 'EncoderDecoder'


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_answers_are_what_the_page_of_the_interface_says(task, start):
    client = start(task)
    page = client.get('openapi.json').json()
    operation = page['paths']['/predict']['post']
    assert set(operation['requestBody']['content']) == {'image/*', 'multipart/form-data'}
    assert {'413', '415', '422', '503', '504'} <= set(operation['responses'])
    schema = operation['responses']['200']['content']['application/json']['schema']
    assert schema == {'$ref': f'#/components/schemas/{task.capitalize()}'}
    answer = client.post('predict?score_threshold=0', content=PNG).json()
    described = page['components']['schemas'][task.capitalize()]
    assert set(answer) <= set(described['properties'])
    assert set(described['required']) <= set(answer)


def test_page_of_the_interface_asks_no_other_server(start):
    client = start()
    page = client.get('docs').text
    assert 'http://' not in page
    assert 'https://' not in page
    for path in ('swagger-ui-bundle.js', 'swagger-ui.css'):
        assert f'/static-offline-docs/{path}' in page
        assert client.get(f'static-offline-docs/{path}').status_code == 200
