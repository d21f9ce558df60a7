import { describe, expect, test } from 'vitest';
import { isQuadletName, quadletImage } from '../../src/format/quadlet.ts';

describe('quadletImage', () => {
  test.each([
    ['an .image file', 'a.image', '[Image]\nImage=quay.io/x/a:1\n', 'quay.io/x/a:1'],
    [
      'a .container file with what podman reads',
      'a.b.container',
      '# about\n[Unit]\nDescription=App\nImage=no\n\n[Container]\nVolume=/a:/b\nVolume=/c:/d\n; old\n Image = quay.io/x/b \n',
      'quay.io/x/b',
    ],
    ['the last of two', 'a.image', '[Image]\nImage=quay.io/x/a\nImage=quay.io/x/b\n', 'quay.io/x/b'],
    ['a line that goes on', 'a.image', '[Image]\r\nImage=\\\r\n# between\r\n  quay.io/x/a\r\n', 'quay.io/x/a'],
    ['a percent sign that is meant', 'a.image', '[Image]\nImage=oci:/a%%b\n', 'oci:/a%b'],
  ])('reads %s', (_, name, text, image) => {
    expect(isQuadletName(name)).toBe(true);
    expect(quadletImage(name, text)).toBe(image);
  });

  test.each([
    ['another ending', 'a.volume', '[Image]\nImage=x\n', /"a\.volume" ends neither/],
    ['no ending', 'image', '[Image]\nImage=x\n', /ends neither/],
    ['nothing', 'a.image', '', /no "Image=" in its section \[Image\]/],
    ['an image in another section', 'a.container', '[Image]\nImage=x\n', /no "Image=" in its section \[Container\]/],
    ['an image that was taken back', 'a.image', '[Image]\nImage=x\nImage=\n', /no "Image="/],
    ['a specifier', 'a.image', '[Image]\nImage=quay.io/x/%m\n', /specifiers/],
    ['a specifier behind a percent sign', 'a.image', '[Image]\nImage=quay.io/x/%%%m\n', /specifiers/],
    ['a unit', 'a.container', '[Container]\nImage=b.image\n', /names the unit "b\.image"/],
    ['credentials', 'a.image', '[Image]\nImage=x\nAuthFile=/a\n', /AuthFile/],
  ])('refuses %s', (_, name, text, message) => {
    expect(() => quadletImage(name, text)).toThrow(message);
  });
});
